def main():
    raise RuntimeError("the disk of the demo is full")
