# Faster R-CNN with ResNet-50 as RankSort (Oksuz et al., 2021) trains it: 12 epochs on COCO 2017, 8 x 4 images,
# its RPN's box coder, its learning rate of 0.012.
_base_ = ["./faster_rcnn_r50.py"]

model = dict(rpn_head=dict(bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2])))
train_dataloader = dict(batch_size=4, num_workers=4)
optim_wrapper = dict(optimizer=dict(lr=0.012))
auto_scale_lr = dict(base_batch_size=32)
