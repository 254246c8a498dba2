"""The program burn-peft in a wheel. `python -m burn_peft` runs it, as the command `burn-peft` does."""
