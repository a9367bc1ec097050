"""A stand-in for LiteLLM's proxy: `--config FILE --host HOST --port PORT`, as the real one is started.

It answers a chat as `mock_response` says, and reports the call to the configured callback as LiteLLM 1.109 was recorded to.
It refuses to start where it would find Meterbridge's own variables, which the real one would use for itself.
"""

import json
import os
import sys
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

_RECORDED = Path(__file__).parents[1] / "fixtures" / "litellm" / "generic_api__1.109.1__anthropic-chat-stream.json"
#: Of the tokens that `mock_response` counts, at the price of gpt-4o.
_TOKENS, _COST = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}, 0.000225


class _Proxy(BaseHTTPRequestHandler):
    config: dict[str, Any]

    def do_GET(self) -> None:
        self._answer(200, "I'm alive!")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['LITELLM_MASTER_KEY']}":
            self._answer(401, {"error": "no key"})
            return
        [deployment] = [one for one in self.config["model_list"] if one["model_name"] == asked["model"]]
        call_id, said = str(uuid.uuid4()), deployment["litellm_params"]["mock_response"]
        choice = {"index": 0, "message": {"content": said, "role": "assistant"}}
        result = {"id": f"chatcmpl-{call_id}", "choices": [choice], "usage": _TOKENS}
        self._answer(200, result, {"x-litellm-call-id": call_id, "x-litellm-response-cost": str(_COST)})
        self._report(call_id, deployment["litellm_params"]["model"], asked["user"])

    def _report(self, call_id: str, model: str, user: str) -> None:
        callback = self.config["callback_settings"][self.config["litellm_settings"]["callbacks"][0]]
        call = json.loads(_RECORDED.read_bytes())
        now = time.time()
        call |= {"id": f"chatcmpl-{call_id}", "litellm_call_id": call_id, "trace_id": call_id, "end_user": user}
        call |= {"model": model, "custom_llm_provider": "openai", "response_cost": _COST, **_TOKENS}
        call |= {"startTime": now - 0.01, "endTime": now}
        call["metadata"] |= {"user_api_key_user_id": "default_user_id", "user_api_key_team_id": None}
        headers = {"Content-Type": "application/json"}
        headers |= {name: os.environ[value.partition("/")[2]] for name, value in callback["headers"].items()}
        request = urllib.request.Request(callback["endpoint"], json.dumps([call]).encode(), headers)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=callback["timeout"]).close()

    def _answer(self, status: int, told: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(told, separators=(",", ":")).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until killed."""
    ours = sorted({"DATABASE_URL", "LAGO_API_KEY"} & os.environ.keys())
    if ours:
        sys.exit(f"LiteLLM would read {ours}")
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    _Proxy.config = yaml.safe_load(Path(options["--config"]).read_text(encoding="utf-8"))
    ThreadingHTTPServer((options["--host"], int(options["--port"])), _Proxy).serve_forever()


if __name__ == "__main__":
    main()
