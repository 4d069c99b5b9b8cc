from wheelhouse import built, installed

__all__ = ["built", "installed"]
