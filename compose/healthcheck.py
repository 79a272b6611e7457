"""Exit 0 when this container's service can do its work (`/readyz`), else 1 with what it waits for."""

import os
import sys
import urllib.error
import urllib.request

url = f"http://127.0.0.1:{os.environ.get('SERAI_PORT', '8080')}/readyz"
try:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=3):
        pass
except urllib.error.HTTPError as error:
    sys.exit(f"{url}: {error.code} {error.read(2000).decode(errors='replace')}")
except OSError as error:
    sys.exit(f"{url}: {error}")
