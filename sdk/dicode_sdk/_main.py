"""The file a run starts with: ``python -I _main.py <script>``.

It is compiled anew at each start, so it holds as little as can be; the rest is in ``_bootstrap``.
"""

if __name__ == "__main__":
    import sys

    _root = __file__.rpartition("/")[0].rpartition("/")[0]
    sys.path.insert(0, _root)
    from dicode_sdk import _bootstrap

    # What lies beside the SDK is the server's, not the task's.
    sys.path.remove(_root)
    _bootstrap.prepare()
    _bootstrap.run(_bootstrap.inherited_fd(), sys.argv[1])
