"""Renew bus/stack/kafka.lock: `python tools/lock_kafka.py 4.3.0`. Needs Maven.

Maven resolves the tree of kafka_2.13 and a logging back end (without one the broker logs nowhere); the lock records
each artifact's coordinates, SHA-256 and size, and the stack then fetches exactly those files.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOG4J = "2.25.4"
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>sealbus</groupId><artifactId>lock</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId>
<version>{log4j}</version></dependency></dependencies></project>
"""


def main(version: str) -> None:
    """Write the lock file for one Kafka version."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pom.xml").write_text(POM.format(kafka=version, log4j=LOG4J))
        maven = ["mvn", "-q", "-B", "-DincludeScope=runtime"]
        subprocess.run([*maven, "dependency:list", "-DoutputFile=list.txt"], cwd=folder, check=True)
        subprocess.run([*maven, "dependency:copy-dependencies", "-DoutputDirectory=jars"], cwd=folder, check=True)
        listed = re.findall(
            r"(\S+):(\S+):jar:(\S+):\w+", re.sub(r"\x1b\[[0-9;]*m", "", (folder / "list.txt").read_text())
        )
        rows = []
        for group, artifact, number in sorted(listed):
            data = (folder / "jars" / f"{artifact}-{number}.jar").read_bytes()
            rows.append(f"{group}:{artifact}:{number} {hashlib.sha256(data).hexdigest()} {len(data)}")
    head = (
        f"# Apache Kafka {version} and what it needs at run time: coordinates, SHA-256, bytes. "
        "Renewed by tools/lock_kafka.py."
    )
    target = Path(__file__).parents[1] / "bus" / "stack" / "kafka.lock"
    target.write_text("\n".join([head, *rows]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
