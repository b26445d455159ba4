"""`omg models`: what can be loaded by name."""

from . import options


def models() -> None:
    """List the weights that load by name."""
    from omgvision.hub import OPEN_CLIP_OF_WIDTH, PUBLISHED, bundled_entries

    for entry in (*bundled_entries(), *PUBLISHED):
        print(f"{entry.repository}  ({entry.size}; {entry.licence})")
        print(f"    {entry.summary}")
    print("The published OMG-Seg holds no backbone; one of these is fetched with it:")
    for identifier in OPEN_CLIP_OF_WIDTH.values():
        print(f"    {identifier}")
    print("The published OMG-LLaVA (zhangtao-whu/OMG-LLaVA) comes in parts: `omg convert` joins them to a folder.")
    print("Folders made by `omg convert` or save_pretrained, and Hub ids of such, load by their names as well.")
    print(f"Class lists for --classes: {', '.join(options.CLASS_LISTS)}.")
