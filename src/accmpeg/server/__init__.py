"""The server: cameras' streams in, server DNN's results out, and a dashboard beside them.

```python
from pathlib import Path

from accmpeg.server import ServerSettings, start_server

with start_server(ServerSettings(dnns=(Path("detector.card.toml"),), port=0)) as server:
    print(server.websocket_url)
```

Importing this loads no web framework; starting a server does (`pip install 'accmpeg[server]'`).
"""

from typing import TYPE_CHECKING

from accmpeg.lazy import lazily

if TYPE_CHECKING:
    from accmpeg.server.run import ServerThread, serve, start_server
    from accmpeg.server.settings import Limits, ServerSettings
    from accmpeg.server.tokens import Tokens, read_tokens
else:
    __getattr__, __dir__ = lazily(__name__)

__all__ = ["Limits", "ServerSettings", "ServerThread", "Tokens", "read_tokens", "serve", "start_server"]
