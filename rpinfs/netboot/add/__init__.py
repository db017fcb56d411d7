"""From a stock image to the root and the boot files of one board: `rpinfs netboot add`, `clone` and `list`.

Each module has one subject; make.py puts them in order. All that is written into a tree goes by tree.py, which follows
no link that an image may have planted; a name appears when it is whole, see staging.py.
"""
