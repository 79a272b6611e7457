"""Made measurements.csv: two kinds of an invented flower, their sizes drawn from normal distributions, fixed seed.

Not run by the job; here so that everybody can see where the data come from: `python3 make_measurements.py`.
"""

import csv
import random

KINDS = {  # mean and spread of petal length, petal width (mm), stem height (cm)
    "0": ((41.0, 5.0), (12.5, 2.5), (31.0, 6.0)),
    "1": ((54.0, 6.0), (19.0, 3.0), (36.0, 6.0)),
}

draw = random.Random(1859)
rows = [
    [*(f"{draw.gauss(mean, spread):.1f}" for mean, spread in sizes), kind]
    for kind, sizes in KINDS.items()
    for _ in range(200)
]
draw.shuffle(rows)
with open("measurements.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["petal_length_mm", "petal_width_mm", "stem_height_cm", "kind"])
    writer.writerows(rows)
