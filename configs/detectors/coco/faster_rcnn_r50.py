# Faster R-CNN (Ren et al., 2015) with ResNet-50 and FPN: mmdet's own 12 epochs on COCO 2017, 8 x 2 images.
_base_ = ["mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"]
