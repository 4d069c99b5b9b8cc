"""The file a run starts with: ``python -I -S _main.py <script> <folders>``.

``folders`` are where installed packages lie, joined by ``:``. Without ``-S`` Python would look for
them itself at each start, which takes as long as all the rest. The file is compiled anew each time,
so it holds as little as can be; the rest is in ``_bootstrap``.
"""

if __name__ == "__main__":
    import sys

    _root = __file__.rpartition("/")[0].rpartition("/")[0]
    sys.path.insert(0, _root)
    from dicode_sdk import _bootstrap

    # What lies beside the SDK is the server's, not the task's.
    sys.path.remove(_root)
    _bootstrap.prepare(sys.argv[2])
    _bootstrap.run(_bootstrap.inherited_fd(), sys.argv[1], caged="__caged__" in globals())
