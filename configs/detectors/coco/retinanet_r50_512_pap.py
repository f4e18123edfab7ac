# As retinanet_r50_512_ranking, for parameterized AP loss: its learning rate of 0.016, its NMS at 0.6.
_base_ = ["./retinanet_r50_512_ranking.py"]

model = dict(test_cfg=dict(nms=dict(iou_threshold=0.6)))
optim_wrapper = dict(optimizer=dict(lr=0.016))
