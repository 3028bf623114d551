"""What the revisions change, on the page: objects, access, reversal and compatibility."""

from collections.abc import Iterator, Mapping

from schema.review.pages import wording
from schema.review.pages.blocks import (
    Block,
    Code,
    Detail,
    Fold,
    Grid,
    Heading,
    Items,
    Line,
    Listing,
    Paragraph,
    Picture,
    Row,
    Strong,
)
from schema.review.result import AccessChange, ObjectChange, Reversal, Review
from schema.text import pluralize


def objects(review: Review, detail: Detail) -> Iterator[tuple[Block, ...]]:
    """Show the objects that change, each with its difference, and the diagram."""
    found = sorted(review.objects, key=lambda one: list(wording.CHANGES).index(one.change))
    blocks: list[Block] = []
    if found:
        numbers = [
            f"{number:,} {change}"
            for change in wording.CHANGES
            if (number := sum(one.change == change for one in found))
        ]
        blocks.append(Heading((f"What changes: {', '.join(numbers)}",)))
        if detail.differences:
            blocks += [_difference(one, detail) for one in found[: detail.most]]
        else:
            blocks.append(Items(tuple((_named(one, detail),) for one in found[: detail.most])))
        blocks += more(len(found), detail)
        yield tuple(blocks)
    if review.diagram.tables:
        yield (Picture(review.diagram),)


def _named(one: ObjectChange, detail: Detail) -> str:
    return f"{wording.CHANGES[one.change]} {one.change}: {wording.cut(one.name, detail.text)}"


def _difference(one: ObjectChange, detail: Detail) -> Block:
    return Fold((_named(one, detail),), (Listing(one.difference, "diff"),))


def access(review: Review, detail: Detail) -> Iterator[Block]:
    """Show what roles can do that they could not before, and the reverse."""
    found = sorted(review.access, key=lambda one: not one.widened)
    if not found:
        return
    widened = sum(one.widened for one in found)
    yield Heading((f"Access: {widened:,} wider, {len(found) - widened:,} narrower",))
    yield Grid(
        ("", "role", "command", "on", "before", "after", "known from"),
        tuple(_access(one, detail) for one in found[: detail.most]),
    )
    yield from more(len(found), detail)


def _access(one: AccessChange, detail: Detail) -> Row:
    def code(text: str) -> Line:
        return (Code(wording.cut(text, detail.text)),)

    return Row(
        (
            (Strong("! wider") if one.widened else "narrower",),
            code(one.role),
            code(one.command),
            code(one.object),
            (wording.cut(one.before, detail.text),),
            (wording.cut(one.after, detail.text),),
            ("a trial on rows" if one.tried else "the catalogs",),
        )
    )


def reversals(review: Review, detail: Detail) -> Iterator[Block]:
    """Show what the downgrades restore."""
    if not review.reversals:
        return
    yield Heading(("Reversal",))
    for one in review.reversals[: detail.most]:
        yield Items((_reversal(one, detail), *_lost(one, detail)))
        if one.difference and detail.differences:
            revision = wording.cut(one.revision, detail.text)
            title = f"How the schema after the downgrade of {revision} differs"
            yield Fold((title,), (Listing(one.difference, "diff"),))
    yield from more(len(review.reversals), detail)


def _reversal(one: Reversal, detail: Detail) -> Line:
    line: Line = (
        Code(wording.cut(one.revision, detail.text)),
        " ",
        Strong(wording.reversal_state(one)),
    )
    if one.reason:
        line += (": ", wording.cut(one.reason, detail.text))
    if one.compared:
        line += (f"; the values of {pluralize(one.compared, 'column')} were compared",)
    return line


def _lost(one: Reversal, detail: Detail) -> Iterator[Line]:
    names: Mapping[str, object] = {**one.lost, **one.declared}
    for name in sorted(names)[: detail.most]:
        line: Line = (Code(wording.cut(name, detail.text)), ": ")
        if name in one.lost:
            line += (f"values of {pluralize(one.lost[name], 'row')} are gone",)
        else:
            line += ("no value is gone",)
        if name in one.declared:
            line += ("; the revision says: ", wording.cut(one.declared[name], detail.text))
        yield line


def compatibility(review: Review, detail: Detail) -> Iterator[Block]:
    """Show what of the models works on one schema only, and what must be deployed first."""
    deployment = wording.deployment(review.breaks) if review.compared_statements else ""
    if not deployment:
        return
    found = sorted(review.breaks, key=lambda one: one.models)
    yield Heading(("Compatibility",))
    yield Paragraph(
        (
            Strong(deployment),
            f" {pluralize(review.compared_statements, 'statement')} of the models ran on both"
            " schemas.",
        )
    )
    if found:
        whose = {"base": "base's models, new schema", "new": "new models, base's schema"}
        rows = [
            Row(
                (
                    (whose[one.models],),
                    (Code(wording.cut(one.table, detail.text)),),
                    (wording.cut(one.command, detail.text),),
                    (Code(wording.cut(one.role, detail.text)),),
                    (wording.cut(one.error, detail.text),),
                )
            )
            for one in found[: detail.most]
        ]
        yield Grid(("what breaks", "table", "command", "role", "error"), tuple(rows))
        yield from more(len(found), detail)


def more(number: int, detail: Detail) -> Iterator[Block]:
    """Say how many of a number are not shown."""
    if detail.most is not None and number > detail.most:
        yield Paragraph((Strong(f"and {number - detail.most:,} more"),))
