"""The gateway on trio: performs what ``tz_protocol`` asks for, decides nothing."""
