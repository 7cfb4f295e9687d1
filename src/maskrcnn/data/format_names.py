"""The formats of data sets by name. The command line lists them without importing what reads them."""

MODULES = {
    "labelme": "labelme",
    "via": "via",
    "parquet": "parquet",
    "csv": "encoded_pixels",
    "coco": "coco",
    "label-studio": "label_studio",
    "cvat": "cvat",
    "labelme-web": "labelme_web",
    "voc": "voc",
    "datumaro": "datumaro",
    "supervisely": "supervisely",
    "mots": "mots",
    "yolo": "yolo",
    "label-images": "label_images",
    "mask-folders": "mask_folders",
}
"""Module of each format by the name that the command line has for it, in the order in which they are tried.

Formats that are certain come first. LabelMe is first because its files may have pictures in them: one file tells its
format, while COCO reads every JSON file of a folder. A table of VIA's is also a CSV file, so VIA comes before. YOLO
also takes folders of pictures with text files of numbers beside them, and the formats of pictures come last: they take
what no annotation file explains.
"""
