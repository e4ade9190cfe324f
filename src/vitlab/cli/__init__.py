"""The command line: one verb per stage; a verb parses, wires and prints."""
