"""Runs in LiteLLM's environment: imports the proxy once, then forks a proxy for each line on its input.

An import takes ten seconds of a core; fifty proxies that are killed need not each do it. What a fork then does is LiteLLM's own
command line, from reading its `config.yaml` on. A line is JSON: `folder`, `port`; the answer is the process id. `kill -9` of a
fork ends that proxy alone.
"""

import json
import os
import signal
import sys

from litellm.proxy import proxy_cli, proxy_server

assert proxy_server.app is not None
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the forks are not waited for: no zombies
print("ready", flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(wanted["folder"])
    log = os.open("litellm.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.path.insert(0, wanted["folder"])
    sys.argv = ["litellm", "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(wanted["port"])]
    proxy_cli.run_server()
    os._exit(0)
