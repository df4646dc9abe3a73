"""The resolver decides: it yields requests, never opens a socket, and returns a frozen Resolution."""
