"""Files with a rate card: amounts are text, and an error message names the place of the mistake."""

import re
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from connectors.billing.rate_files import POWER_LEVELS, InvalidRateCard, card_of, text_of
from connectors.cli.main import app
from schemas.decoding import Unreadable, decoder
from schemas.moments import parse_us
from schemas.rates import Entry, Factors, RateCard
from streams.core.pricing.price import entry_of
from tests.support.rate_cards import call, card, price_of

D = Decimal
ROOT = Path(__file__).parents[3]
HEAD = 'id = "r"\neffective_from = "2026-12-01T00:00:00Z"\n'


def example_of_page() -> str:
    page = (ROOT / "docs" / "rates.md").read_text(encoding="utf-8")
    return re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0]


def test_the_example_on_the_page_is_a_valid_file_with_the_described_meaning() -> None:
    created = card_of(example_of_page())
    assert (created.id, created.effective_from) == ("2026-12", parse_us("2026-12-01T00:00:00Z"))
    mini = call("1", model="gpt-4o-mini", tokens_input=1_000_000, cached_tokens=500_000, cache_write_tokens=100_000)
    assert price_of(created, mini) == D("0.08") + D("0.05") + D("0.025")
    assert price_of(created, call(model="whisper-1", seconds=D(10))) == D("0.002")
    assert price_of(created, call(model="dall-e-3", images=2, team_id="research")) == D("0.06")
    assert price_of(created, call("0.01", power_level="eco")) == D("0.0084")
    assert price_of(created, call("0.0000001")) == D("0.000001")
    assert entry_of(created, "internal/x", "").per_request == D("0.001")
    assert created.factors == Factors(
        POWER_LEVELS, {"research": D("0.5")}, {"enterprise": D("0.9")}, {"org_acme": D("0.85")}
    )


def test_power_levels_have_factors_only_if_the_card_has_their_table() -> None:
    """A client may choose its level: a discount for one org must not be a discount for each client that asks for `eco`."""
    assert card_of(HEAD).factors is None
    of_org = card_of(HEAD + '[factors.org]\nacme = "0.85"\n')
    assert of_org.factors is not None and of_org.factors.power_level == {}
    assert price_of(of_org, call("1", power_level="eco")) == D(1)
    plain = card_of(HEAD + "[factors.power_level]\n").factors
    assert plain is not None and plain.power_level == POWER_LEVELS
    created = card_of(HEAD + '[factors.power_level]\neco = "0.5"\n').factors
    assert created is not None and created.power_level == POWER_LEVELS | {"eco": D("0.5")}


@pytest.mark.parametrize(
    "card_in_force",
    [
        card_of(HEAD),
        card_of(example_of_page()),
        card_of(HEAD + "[default]\n[factors]\n"),
        RateCard("r", 0, 7, entries=(Entry('a "b"\\\x7f\n*', "*", per_image=D("1E-7")),), default=Entry(minimum=D(2))),
        RateCard("r", 0, factors=Factors(team={"équipe 1": D("0.5"), "\U0001f600": D(2)}, org={"o": D(1)})),
    ],
    ids=["cost", "page", "empty tables", "signs", "teams"],
)
def test_a_version_in_force_is_written_as_a_file_that_is_read_as_the_same_version(card_in_force: RateCard) -> None:
    assert card_of(text_of(card_in_force)) == msgspec.structs.replace(card_in_force, put_at=0)


def test_a_toml_datetime_is_accepted_as_a_moment() -> None:
    assert card_of('id = "r"\neffective_from = 2026-12-01T01:00:00+01:00\n').effective_from == parse_us(
        "2026-12-01T00:00:00Z"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[", "the file is not valid TOML"),
        ("", "id is missing"),
        ('id = "r"\n', "effective_from: write a time"),
        ('id = "r"\neffective_from = "soon"\n', "is not a time in ISO 8601"),
        ('id = "r"\neffective_from = "2026-12-01T00:00:00.5Z"\n', "must be a whole second"),
        (HEAD.replace('"r"', '"a b"'), "id: use up to 64"),
        (HEAD + 'currency = "EUR"\n', "currency: must be USD"),
        (HEAD + 'colour = "red"\n', "the card: 'colour' is unknown"),
        (HEAD + '[[price]]\ninput = "1"\n', "price 1: name a model or a provider"),
        (HEAD + '[[price]]\nmodel = "*"\ninput = 0.1\n', 'price 1.input: write the number as text, input = "0.1"'),
        (HEAD + '[[price]]\nmodel = "*"\ninput = 1\n', 'price 1.input: write the number as text, input = "1"'),
        (HEAD + '[[price]]\nmodel = "*"\ninput = "1_0"\n', "price 1.input: '1_0' is not a plain decimal number"),
        (HEAD + '[[price]]\nmodel = "*"\ninput = "-1"\n', "price 1.input: must be from 0"),
        (HEAD + '[[price]]\nmodel = "*"\ninput = "1e-13"\n', "price 1.input: more than 12 decimals"),
        (HEAD + '[[price]]\nmodel = ""\n', "price 1: model or provider is empty"),
        (HEAD + '[default]\nmodel = "x"\n', "default: 'model' is unknown"),
        (HEAD + '[default]\nmarkup_percent = "-101"\n', "default.markup_percent: must be from -100"),
        (HEAD + '[default]\nmarkup_percent = "1"\ninput = "1"\n', "use either it or prices per unit"),
        (HEAD + '[factors.plan]\npro = "0.12345"\n', "factors.plan.pro: more than 4 decimals"),
        (HEAD + '[factors.plan]\npro = "-1"\n', "factors.plan.pro: must be from 0"),
        (HEAD + '[factors.colour]\nred = "1"\n', "factors: 'colour' is unknown"),
        (HEAD + 'price = "1"\n', "price: begin each price with"),
        (HEAD + '[factors]\nplan = "1"\n', "factors.plan: must be a table; begin it with [factors.plan]"),
        (HEAD + 'factors = "1"\n', "factors: must be a table; begin it with [factors]"),
    ],
)
def test_an_error_in_a_file_is_explained_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(InvalidRateCard, match=re.escape(sentence)):
        card_of(text)


def test_a_version_is_stored_with_the_original_text_of_its_numbers() -> None:
    created = card_of(example_of_page())
    written = msgspec.json.encode(created)
    assert b'"input":"0.20"' in written
    assert decoder(RateCard)(written) == created


@pytest.mark.parametrize(
    "broken",
    [
        msgspec.structs.replace(card(), effective_from=-1),
        card(Entry(input=D("NaN"))),
        card(Entry(input=D("-1"))),
        card(plan={"pro": "0.00001"}),
    ],
)
def test_a_stored_card_with_an_invalid_amount_is_unreadable(broken: RateCard) -> None:
    with pytest.raises(Unreadable):
        decoder(RateCard)(msgspec.json.encode(broken))


def test_the_command_prints_the_meaning_of_a_file_or_its_errors(tmp_path: Path) -> None:
    file = tmp_path / "card.toml"
    file.write_text(example_of_page(), encoding="utf-8")
    said = CliRunner().invoke(app, ["rates", "check", str(file)])
    assert said.exit_code == 0
    assert "else: LiteLLM's cost + 20 %, at least 0.000001 USD a call" in said.stdout
    assert "x 0.85 for org org_acme" in said.stdout
    file.write_text(HEAD + "[default]\nminimum = 0.1\n", encoding="utf-8")
    said = CliRunner().invoke(app, ["rates", "check", str(file)])
    assert said.exit_code == 1 and "write the number as text" in said.stderr
    said = CliRunner().invoke(app, ["rates", "check", str(tmp_path / "none.toml")])
    assert said.exit_code == 2 and "none.toml' cannot be used: no such file or directory." in said.stderr


@pytest.mark.parametrize(
    ("price", "sentence"),
    [
        ('[default]\nminimum = "0.0000001"\n', "default.minimum: more than 6 decimals, to which COST_DECIMALS"),
        ('[[price]]\nmodel = "m"\nminimum = "0.0000014"\n', "price 1.minimum: more than 6 decimals"),
        ('[[price]]\nmodel = "m"\nper_request = "0.0000004"\n', "price 1.per_request: more than 6 decimals"),
        ('[[price]]\nmodel = "m"\nper_image = "0.0000004"\n', "price 1.per_image: more than 6 decimals"),
        ('[[price]]\nmodel = "m"\nper_request = "0"\ninput = "0.0000001"\nper_second = "0.0000004"\n', ""),
    ],
)
def test_a_price_that_rounding_would_make_zero_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, price: str, sentence: str
) -> None:
    file = tmp_path / "card.toml"
    file.write_text(HEAD + price, encoding="utf-8")
    assert CliRunner().invoke(app, ["rates", "check", str(file)]).exit_code == 0
    monkeypatch.setenv("COST_DECIMALS", "6")
    for words in (["check"], ["put", "--comment", "c"]):
        said = CliRunner().invoke(app, ["rates", *words, str(file)])
        if sentence:
            assert said.exit_code == 1 and sentence in " ".join(said.stderr.split()), said.stderr
        else:
            assert "decimals" not in said.stderr
        if words == ["check"] and not sentence:
            return
