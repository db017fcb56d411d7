"""Readers of what servers and boards are told by: texts to statements with their lines. Pure, one file a syntax.

Each takes what it does not know as it stands: these are other people's files. What cannot be read at all is a
SyntaxFault, with its line.
"""
