"""The server: cameras' streams in, server DNN's results out, and a dashboard beside them."""

from accmpeg.server.run import ServerThread, serve, start_server
from accmpeg.server.settings import Limits, ServerSettings
from accmpeg.server.tokens import Tokens

__all__ = ["Limits", "ServerSettings", "ServerThread", "Tokens", "serve", "start_server"]
