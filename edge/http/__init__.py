"""The front door: one hostile byte stream in, requests and answers out."""
