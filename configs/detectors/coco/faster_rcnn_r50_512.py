# Faster R-CNN (Ren et al., 2015) with ResNet-50 in the 100 epochs of Parameterized AP Loss (Tao et al., 2021), as its
# cross-entropy baselines are trained: learning rate 0.04 for 64 images.
_base_ = ["./_recipe_512.py", "mmdet::_base_/models/faster-rcnn_r50_fpn.py"]

optim_wrapper = dict(optimizer=dict(lr=0.04))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=100, by_epoch=True, milestones=[75, 95], gamma=0.1),
]
