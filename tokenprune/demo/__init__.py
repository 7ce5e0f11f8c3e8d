"""The comparison app: `tokenprune demo`. Needs the extra `demo`; nothing here imports gradio before it is served."""

from .serving import Options, Server, served
from .shelf import Loading
from .uploads import Limits

__all__ = ["Limits", "Loading", "Options", "Server", "served"]
