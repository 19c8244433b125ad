"""The three tasks of the demo model: problems, their working, and the vocabulary.

A problem is a one-line prompt; the model writes its working, then a last line `=ANSWER`. Every character of the
working can be found by a lookup on something unique (a row and a column, a label, a letter) or computed from the
few characters before it, which is what a small model can learn to do without a single slip in 2,400 characters.
"""

import random
import string
import zlib

LOWER, UPPER = string.ascii_lowercase, string.ascii_uppercase
ROWS = "αβγδεζηθικλμνξοπρστυφχψω"  # row labels of the edit table, one per letter of the first word
COLS = UPPER[:24]
SPECIAL = ["<pad>", "<eos>", "<unk>"]
PAD, EOS, UNK = 0, 1, 2
CHARS = "\n =.,;:@|+-*" + "0123456789" + LOWER + UPPER + ROWS
VOCAB = SPECIAL + list(CHARS)
CODE = {ord(c): i + len(SPECIAL) for i, c in enumerate(CHARS)}  # char -> token id, for str.translate
TASKS = ("edit", "walk", "prog")
DIGIT = "0123456789" * 3


def encode(text):
    """Token ids as bytes (the vocabulary has fewer than 128 entries)."""
    return text.translate(CODE).encode("latin-1")


def decode(ids):
    return "".join(VOCAB[i] for i in ids if i >= len(SPECIAL))


def held_out(prompt):
    """One prompt in sixteen is never trained on: the split is a property of the text, so it cannot leak."""
    return zlib.crc32(prompt.encode()) % 16 == 0


# edit A B: Levenshtein distance. Row i, cell j is `<row><column><B[j]><cell above><cell>`, digits modulo 10
# (neighbours differ by at most one, so that is enough); a row ends in its last value in full.


def edit_trace(a, b):
    n = len(b)
    head = "@:..0" + "".join(f"@{COLS[j]}{b[j]}.{DIGIT[(j + 1) % 10]}" for j in range(n))
    out = [f"{head}{n:02d}\n"]
    prev = list(range(n + 1))
    for i, ca in enumerate(a):
        r = ROWS[i]
        row = [i + 1]
        cells = [f"{r}:{ca}{DIGIT[i]}{DIGIT[i + 1]}"]
        left, diag = i + 1, i
        for j, cb in enumerate(b):
            up = prev[j + 1]
            left = diag if ca == cb else min(diag, up, left) + 1
            diag = up
            row.append(left)
            cells.append(r + COLS[j] + cb + DIGIT[up] + DIGIT[left])
        out.append("".join(cells) + f"{left:02d}\n")
        prev = row
    return "".join(out), str(prev[n])


def edit_length(m, n):
    return 7 + m + n + (m + 1) * (5 * (n + 1) + 3) + 4


def edit_sample(rng, lo, hi):
    m, n = rng.choice(
        EDIT_SIZES.setdefault(
            (lo, hi), [(m, n) for m in range(1, 25) for n in range(1, 25) if lo < edit_length(m, n) <= hi]
        )
    )
    letters = rng.sample(LOWER, rng.choice((2, 2, 3, 4, 6, 10, 26)))
    a = rng.choices(letters, k=m)
    if rng.random() < 0.5:
        b = rng.choices(letters, k=n)
    else:  # a few edits away, so that every kind of path through the table occurs
        b = list(a)
        for _ in range(rng.randrange(6)):
            b[rng.randrange(len(b))] = rng.choice(letters)
        while len(b) > n:
            del b[rng.randrange(len(b))]
        while len(b) < n:
            b.insert(rng.randrange(len(b) + 1), rng.choice(letters))
    return f"edit {''.join(a)} {''.join(b)}"


EDIT_SIZES = {}


def edit_solve(prompt):
    _, a, b = prompt.split()
    return edit_trace(a, b)


# walk ab ba ... from a 12: follow the arrows (`ab` is a -> b); each step is `<steps left><from><to> `.


def walk_sample(rng, lo, hi):
    k = rng.randint(2, 26)
    nodes = rng.sample(LOWER, k)
    to = nodes[:]
    rng.shuffle(to)
    arrows = list(zip(nodes, to))
    rng.shuffle(arrows)
    fixed = 18 + 3 * k  # everything but the steps, with a three-digit count
    steps = rng.randint(max(1, (lo - fixed) // 6 + 1), max(1, (hi - fixed) // 6))
    return f"walk {' '.join(x + y for x, y in arrows)} from {rng.choice(nodes)} {steps}"


def walk_solve(prompt):
    words = prompt.split()
    arrows = {w[0]: w[1] for w in words[1:-3]}
    at = words[-2]
    out = []
    for left in range(int(words[-1]), 0, -1):
        out.append(f"{left:03d}{at}{arrows[at]} ")
        at = arrows[at]
    return "".join(out), at


# prog x3 y7 do 12 Ax=x+y,By=y*x;: run the lines A, B, ... in order, 12 times over, modulo 10. A step is
# `<rounds left><line as in the prompt><two operands><result>|<all variables>`.


def prog_sample(rng, lo, hi):
    while True:
        names = rng.sample(LOWER, rng.randint(2, 6))
        lines = rng.randint(1, 12)
        v = len(names)
        fixed, line = 10 + 3 * v + 7 * lines + 2 * v + 2, 14 + 2 * v
        least, most = max(1, (lo - fixed) // (line * lines) + 1), min(99, (hi - fixed) // (line * lines))
        if least <= most:
            break
    start = " ".join(f"{x}{rng.randrange(10)}" for x in names)
    body = ",".join(
        f"{UPPER[i]}{rng.choice(names)}={rng.choice(names)}{rng.choice('++--*')}{rng.choice(names)}"
        for i in range(lines)
    )
    return f"prog {start} do {rng.randint(least, most)} {body};"


def prog_solve(prompt):
    words = prompt.split()
    at = words.index("do")
    env = {w[0]: int(w[1]) for w in words[1:at]}
    lines = words[at + 2][:-1].split(",")
    out = []
    for left in range(int(words[at + 1]), 0, -1):
        for i, line in enumerate(lines):
            dst, x, op, y = line[1], env[line[3]], line[4], env[line[5]]
            env[dst] = (x + y if op == "+" else x - y if op == "-" else x * y) % 10
            stop = ";" if i + 1 == len(lines) else ","
            state = "".join(k + DIGIT[v] for k, v in env.items())
            out.append(f"{left:02d}{line}{stop}{x}{y}{env[dst]}|{state}\n")
    return "".join(out), "".join(f"{k}{v}" for k, v in env.items())


SAMPLE = {"edit": edit_sample, "walk": walk_sample, "prog": prog_sample}
SOLVE = {"edit": edit_solve, "walk": walk_solve, "prog": prog_solve}


def solve(prompt):
    """(working, answer) of any prompt of the three forms."""
    return SOLVE[prompt.split(maxsplit=1)[0]](prompt)


def answer_text(prompt):
    """All that the model should write after the prompt's newline, before the end token."""
    working, answer = solve(prompt)
    return f"{working}={answer}"


def sample(rng, task, lo, hi, want_held_out=False):
    """A problem whose prompt and answer take more than lo (as far as the task allows) and at most hi tokens."""
    while True:
        prompt = SAMPLE[task](rng, lo, hi)
        if held_out(prompt) == want_held_out:
            return prompt


def held_out_set(seed, per_task, lo=1200, hi=2400):
    """Distinct held-out problems with between lo and hi tokens of working, in a fixed order."""
    rng = random.Random(f"held-out {seed}")
    for task in TASKS:
        seen = set()
        while len(seen) < per_task:
            prompt = sample(rng, task, lo, hi + 140, True)
            working, answer = solve(prompt)
            if prompt not in seen and lo <= len(working) <= hi:
                seen.add(prompt)
                yield {"task": task, "prompt": prompt, "answer": answer}
