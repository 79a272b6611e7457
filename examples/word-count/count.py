"""Count the words of all text files in a folder; write counts.json, print the most frequent ones."""

import collections
import json
import pathlib
import re
import sys

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


def main(folder):
    by_file = {}
    every = collections.Counter()
    for path in sorted(pathlib.Path(folder).glob("*.txt")):
        words = WORD.findall(path.read_text(encoding="utf-8").lower())
        by_file[path.name] = len(words)
        every.update(words)
        print(f"{path.name}: {len(words)} words")
    result = {
        "files": by_file,
        "words": sum(every.values()),
        "different": len(every),
        "most_frequent": [word for word, _ in sorted(every.items(), key=lambda item: (-item[1], item[0]))[:5]],
    }
    pathlib.Path("counts.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"{result['words']} words, {result['different']} different; most frequent: {result['most_frequent']}")


main(sys.argv[1])
