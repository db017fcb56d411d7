"""The commands, one module a group; rpinfs.cli has the table of them and imports the one that is called."""
