"""What survives the server."""
