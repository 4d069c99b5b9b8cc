"""``python -I -S cage/__main__.py <plan fd> <control fd>``: see ``start``; ``serve``: ``forks``.

Compiled anew each time, so it holds as little as can be.
"""

if __name__ == "__main__":
    import sys

    _root = __file__.rpartition("/dicode_mcp/")[0]
    sys.path.insert(0, _root)
    if sys.argv[1] == "probe":
        from dicode_mcp.cage.probe import main

        main(sys.argv[2:])
    elif sys.argv[1] == "serve":
        from dicode_mcp.cage.forks import serve

        sys.path.remove(_root)
        serve(int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5:])
    else:
        from dicode_mcp.cage.start import start

        sys.path.remove(_root)
        start(int(sys.argv[1]), int(sys.argv[2]))
