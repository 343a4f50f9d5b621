"""Create missing buckets, with the S3 settings of the fleet.

python buckets.py BUCKET …
"""

from __future__ import annotations

import sys

from ocrfleet.s3 import client as s3
from ocrfleet.settings import S3Settings


def main() -> None:
    client = s3.client(S3Settings())
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in sys.argv[1:]:
        if name not in there:
            client.create_bucket(Bucket=name)


if __name__ == "__main__":
    main()
