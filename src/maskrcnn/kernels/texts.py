"""Text forms of runs: Kaggle's EncodedPixels, parsed a column at a time, and COCO's compressed counts."""

import numpy as np
from numba import njit

# Error codes of `parse_runs`.
OK, NOT_INTEGER, ODD_COUNT, NOT_POSITIVE, PAST_END, OVERLAP, DECREASING = range(7)

SPACE, TAB, CARRIAGE_RETURN, MINUS, PLUS, ZERO, NINE = 32, 9, 13, 45, 43, 48, 57


@njit(cache=True, nogil=True)
def is_blank(char):
    """Whether a byte separates words: a space, a tab or a line break."""
    return char == SPACE or TAB <= char <= CARRIAGE_RETURN


@njit(cache=True, nogil=True)
def count_numbers(text, offsets):
    """Count the blank-separated words of each text. `offsets` (n + 1,) delimits n texts in the bytes `text`."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(offsets) - 1):
        in_word = False
        for p in range(offsets[i], offsets[i + 1]):
            blank = is_blank(text[p])
            if not blank and not in_word:
                counts[i] += 1
            in_word = not blank
    return counts


@njit(cache=True, nogil=True)
def parse_runs(text, offsets, n_pixels, run_offsets, origin, relative, runs):
    """Parse n texts into `runs`. Return run counts (n,) and problems (n, 3): error code, word index, value.

    The runs of text i begin at ``runs[run_offsets[i]]``; touching runs are joined. With `relative`, each start is an
    offset from the end of the previous run. If ``n_pixels[i]`` is -1 (unknown), the end of the runs is not checked.
    """
    n = len(offsets) - 1
    counts = np.zeros(n, np.int64)
    problems = np.zeros((n, 3), np.int64)
    for i in range(n):
        word = start = value = previous_end = 0
        previous_start = -1
        next_run = run_offsets[i]
        p, stop = offsets[i], offsets[i + 1]
        code = OK
        while p < stop:
            c = text[p]
            if is_blank(c):
                p += 1
                continue
            negative = c == MINUS
            if c in (MINUS, PLUS):
                p += 1
            value = digits = 0
            while p < stop and text[p] >= ZERO and text[p] <= NINE:
                value = value * 10 + (text[p] - ZERO)
                digits += 1
                p += 1
            if digits == 0 or digits > 18 or (p < stop and not is_blank(text[p])):
                code = NOT_INTEGER
                break
            if negative:
                value = -value
            if word % 2 == 0:
                if relative:
                    start = previous_end + value
                    if value < 0:
                        code = OVERLAP
                        break
                else:
                    start = value - origin
                    if start < 0:
                        code = NOT_POSITIVE
                        break
                    if start < previous_start:
                        code = DECREASING
                        break
                    if start < previous_end:
                        code = OVERLAP
                        break
            else:
                if value <= 0:
                    code = NOT_POSITIVE
                    break
                if n_pixels[i] >= 0 and start + value > n_pixels[i]:
                    code = PAST_END
                    break
                if next_run > run_offsets[i] and runs[next_run - 1, 0] + runs[next_run - 1, 1] == start:
                    runs[next_run - 1, 1] += value
                else:
                    runs[next_run, 0], runs[next_run, 1] = start, value
                    next_run += 1
                previous_start, previous_end = start, start + value
            word += 1
        if code == OK and word % 2 == 1:
            code, word = ODD_COUNT, word - 1
        counts[i] = next_run - run_offsets[i]
        problems[i, 0], problems[i, 1], problems[i, 2] = code, word, value
    return counts, problems


@njit(cache=True, nogil=True)
def compact_runs(runs, run_offsets, counts):
    """Close, in place, the gaps that joined runs left in `runs`. Return the new offsets (n + 1,)."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    for i in range(len(counts)):
        source, target = run_offsets[i], offsets[i]
        if source != target:
            for k in range(counts[i]):
                runs[target + k, 0] = runs[source + k, 0]
                runs[target + k, 1] = runs[source + k, 1]
        offsets[i + 1] = target + counts[i]
    return offsets


@njit(cache=True, nogil=True)
def counts_to_chars(counts):
    """Compress counts like COCO: 5-bit groups plus 48. After the third, a count is stored minus the one two before."""
    chars = np.empty(13 * len(counts), np.uint8)
    n = 0
    for i in range(len(counts)):
        value = counts[i] - counts[i - 2] if i > 2 else counts[i]
        more = True
        while more:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            chars[n] = (group | 32 if more else group) + 48
            n += 1
    return chars[:n].copy()


@njit(cache=True, nogil=True)
def chars_to_counts(chars):
    """Invert `counts_to_chars`. Return the counts and the position of the first bad character, or -1."""
    counts = np.empty(len(chars), np.int64)
    n = p = 0
    while p < len(chars):
        value = np.int64(0)
        shift = 0
        more = True
        while more:
            if p >= len(chars) or chars[p] < 48 or chars[p] > 111 or shift > 60:
                return counts[:n].copy(), p
            group = np.int64(chars[p]) - 48
            value |= (group & 31) << shift
            more = (group & 32) != 0
            shift += 5
            p += 1
            if not more and group & 16:
                value |= np.int64(-1) << shift
        if n > 2:
            value += counts[n - 2]
        if value < 0:
            return counts[:n].copy(), p - 1
        counts[n] = value
        n += 1
    return counts[:n].copy(), -1
