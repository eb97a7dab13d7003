"""What this package asks of pydantic models: export, freezing, copies, discriminated families."""
