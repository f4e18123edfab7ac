# Mask R-CNN (He et al., 2017) with ResNet-50: mmdet's own 12 epochs on COCO 2017, 8 x 2 images.
_base_ = ["mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"]
