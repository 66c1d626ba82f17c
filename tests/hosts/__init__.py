"""Many hosts: each with a real sshd and a real nginx of its own, and everything that can happen to one."""
