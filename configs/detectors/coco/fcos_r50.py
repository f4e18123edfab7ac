# FCOS (Tian et al., 2019) with ResNet-50 in caffe's style, group norm in the head, center sampling,
# distances in strides, centerness on the box branch, GIoU: mmdet's own 12 epochs on COCO 2017, 8 x 2 images.
_base_ = ["mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py"]
