"""`python -m search_server.cli`, for where the `lossforge` script is not on the path."""

from search_server.cli import main

main()
