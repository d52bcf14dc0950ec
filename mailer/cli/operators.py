"""``mailer user``: who may enter the console."""
