"""`vitlab serve`: a prediction API and an inspector page, on this machine alone (extra `serve`)."""
