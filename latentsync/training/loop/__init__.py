"""The training loop that every task runs on."""
