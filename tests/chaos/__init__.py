"""Random faults under load on a real broker, judged from outside: `python -m tests.chaos --rounds 100 --seed N`."""
