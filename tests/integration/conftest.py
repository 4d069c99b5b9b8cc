from liveserver import serve

__all__ = ["serve"]
