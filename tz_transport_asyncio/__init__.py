"""The gateway on asyncio: performs what ``tz_protocol`` asks for, decides nothing."""
