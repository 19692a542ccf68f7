Array(Tuple(key String, value Tuple({part:scalar}, array_value Tuple(values Array(Tuple({part:scalar}))), kvlist_value Tuple(values Array(Tuple(key String, value Tuple({part:scalar})))))))
