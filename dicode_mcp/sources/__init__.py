"""Where tasks come from: adapters that fetch and watch, and know nothing of manifests."""
