"""Drives the core with asyncio: timers, disk thread, apply thread, waiting callers."""
