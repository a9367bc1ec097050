"""An export that cannot write its file names the file that the operator chose."""

from pathlib import Path

import pytest

from connectors.cli import export


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), None])
def test_a_file_that_cannot_be_written_is_named_as_it_was_given(tmp_path: Path, error: OSError | None) -> None:
    """Earlier the sentence named the file beside it, which the operator never typed."""
    out = (tmp_path if error else tmp_path / "nowhere") / "focus.csv"

    def written(_write: object) -> None:
        assert error is not None
        raise error

    with pytest.raises(OSError) as refused:  # any of them
        export._into_file(out, written)  # type: ignore[arg-type]
    assert refused.value.filename == str(out)
    assert list(tmp_path.iterdir()) == []
