# ATSS (Zhang et al., 2020) with ResNet-50: mmdet's own 12 epochs on COCO 2017, 8 x 2 images.
_base_ = ["mmdet::atss/atss_r50_fpn_1x_coco.py"]
