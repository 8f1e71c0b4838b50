"""A third party's package as the suite sees it: a loader, a protocol and cards. Put its folder on the Python path."""
