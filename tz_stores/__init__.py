"""What both transports do in worker threads: ClickHouse, its engine, files."""
