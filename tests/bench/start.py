async def measure(folder, **k): pass
