"""Clients and server as Ray actors: the one room that imports Ray."""
