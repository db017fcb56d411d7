"""The rules of `rpinfs netboot check`: each a function from what is there to findings, with its source."""
